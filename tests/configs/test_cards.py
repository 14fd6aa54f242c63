"""Each config opens with a card that says what it is, and says it rightly."""

import re
from pathlib import Path

import pytest
from test_all import ALL

from mmdtm.report.cards import read_card

ROOT = Path(__file__).resolve().parents[2]
OURS = [name for name in ALL if name.startswith('configs/')]


@pytest.mark.parametrize('name', OURS)
def test_a_card_names_its_config_and_what_follows(name):
    card = read_card(ROOT / name)
    assert name in card.command.split(), 'the command names another config'
    for command in ('Test', 'Grid'):
        assert command not in card.fields or name in card.fields[command].split()
    then = card.fields['Then'].split(', ') if 'Then' in card.fields else []
    assert (card.stage == 'pre-training') == bool(then)
    for pattern in then:
        followers = sorted(ROOT.glob(pattern))
        assert followers, f'{pattern} names no config'
        assert 'pre-training' not in {read_card(path).stage for path in followers}


GRIDS = [name for name in OURS if 'Grid' in read_card(ROOT / name).fields]


@pytest.mark.parametrize('name', [n for n in GRIDS if '/transfer/' in n])
def test_grids_of_tables_6_and_7(name):
    """Over rates and weight decays alone: seeds would be in the deviation, too."""
    command = read_card(ROOT / name).fields['Grid']
    assert '--lr' in command and '--weight-decay' in command
    assert '--seeds' not in command
    assert len(GRIDS) >= 8


def test_the_grids_shown_are_of_both_rows_and_without_seeds():
    page = (ROOT / 'docs/transfer.md').read_text()
    blocks = re.findall(
        r'```bash\n(python tools/grid_search.py.*?)```', page, re.DOTALL
    )
    (shown,) = blocks
    assert '--seeds' not in shown
    for pretrained in ('work_dirs/dtm_vit-b_300e', 'work_dirs/token-wise_vit-b_300e'):
        assert f'checkpoint={pretrained}/epoch_300.pth' in shown


@pytest.mark.parametrize('name', sorted(set(ALL) - set(OURS)))
def test_card_of_an_example(name):
    card = (ROOT / name).read_text().split('"""')[1]
    assert 'Hardware:' in card and name in card


def test_all_tables_have_configs():
    tables = {table for name in OURS for table, _ in read_card(ROOT / name).rows}
    # Table 1 trains nothing of ours: docs/analysis.md.
    assert tables == {*map(str, range(2, 15)), 'figure 5'}


@pytest.mark.parametrize(
    ('old', 'new', 'message'),
    [
        ('Stage:     pre-training\n', '', 'lacks Stage'),
        ('Stage:     pre-training', 'Stage:     training', 'says Stage: training'),
        ('Rows:      4: DTM, ViT-B;', 'Rows:      table 4;', "Rows .*'table 4'"),
    ],
)
def test_what_is_wrong_with_a_card_is_said(old, new, message, tmp_path):
    text = (ROOT / 'configs/dtm_vit-b_300e.py').read_text()
    assert old in text
    (tmp_path / 'mine.py').write_text(text.replace(old, new))
    with pytest.raises(ValueError, match=f'mine.py.*{message}'):
        read_card(tmp_path / 'mine.py')
