"""docs/tables.md and the model index say what the paper's file and the cards say."""

import pytest
from modelindex.load_model_index import load
from tiny_run import ROOT, load_tool

from mmdtm.report.paper import paper_tables


@pytest.fixture(scope='module')
def tool():
    return load_tool('docs_tables.py')


@pytest.fixture(scope='module')
def cards(tool):
    return tool.read_cards()


def chains() -> dict[str, set[str]]:
    """Names of the configs behind each table."""
    return {
        number: {
            name
            for cell in table.cells
            for name in cell.chain
            if not name.startswith('patches_')  # the results of table 1's tool
        }
        for number, table in paper_tables().items()
    }


def test_all_is_up_to_date(tool, capsys):
    assert tool.main(['--check']) == 0, capsys.readouterr().err


def test_page_has_all_tables(tool):
    page = tool.PAGE.read_text()
    tables = list(map(str, range(1, 15)))
    targets = [*tables[:11], 'figure 5', *tables[11:], 'beyond the paper']
    assert [match[2] for match in tool.REGION.finditer(page)] == targets


def test_a_stale_page_is_noticed(tool, tmp_path, monkeypatch):
    page = tool.PAGE.read_text()
    monkeypatch.setattr(tool, 'PAGE', tmp_path / 'tables.md')
    tool.PAGE.write_text(page.replace('| 84.0 (-0.3) |', '| 85.0 |'))
    assert tool.main(['--check']) == 1 and '| 85.0 |' in tool.PAGE.read_text()
    assert tool.main([]) == 0 and tool.PAGE.read_text() == page


def test_a_stale_metafile_is_noticed(tool, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tool, 'METAFILES', tmp_path)
    assert tool.main(['--check']) == 1
    assert capsys.readouterr().err.count('metafile.yml is not up to date') == 2
    assert tool.main([]) == 0 and tool.main(['--check']) == 0


def test_model_index_has_every_config_and_no_result(cards):
    models = {model.name: model for model in load(str(ROOT / 'model-index.yml')).models}
    assert models.keys() == cards.keys()
    for name, model in models.items():
        assert (ROOT / model.config).samefile(ROOT / f'configs/{name}.py')
        assert not model.weights and not any(r.metrics for r in model.results or [])
        assert (cards[name].stage == 'pre-training') == (model.results is None)
    transfer = models['transfer/dtm_vit-b_100e_cub200'].metadata.data
    assert (transfer['Training Data'], transfer['Epochs']) == ('cub200', 100)


def test_every_config_and_command_is_listed(tool, cards):
    page = tool.PAGE.read_text()
    for name, card in cards.items():
        assert f'| `{name}` | {card.title.rstrip(".")} |' in page
        assert f'`{card.command}`' in page


def test_every_config_behind_a_value_exists(cards):
    assert set().union(*chains().values()) - set(cards) == set()


def test_cards_name_the_tables_that_their_configs_are_behind(cards):
    behind = chains()
    for name, card in cards.items():
        if card.stage not in ('pre-training', 'transfer'):
            continue  # what follows any pre-training names its recipe's table
        named = {table for table, _ in card.rows} & set(behind)
        assert named == {n for n, names in behind.items() if name in names}, name
