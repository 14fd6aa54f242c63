import numpy as np
import pytest

from mmdtm.morphing import merge_schedule


@pytest.fixture
def tool(load_tool):
    return load_tool('plot_fidelity')


@pytest.mark.parametrize('reach', [False, True])
def test_outcomes__are_those_of_all_draws(tool, reach):
    draws = tool.outcomes(9, (1, 3), reach)
    assert sum(share for *_, share in draws) == 1
    for drawn in range(1, 10):
        shares = [share for n, _, _, share in draws if n == drawn]
        assert sum(shares) * 9 == 1 and len(set(shares)) == 1
    for drawn, k, left, _ in draws:
        count = 9  # every merge one pair at a time
        for merges in merge_schedule(9, drawn, k, reach):
            count -= min(merges, count // 2)
        assert left == count
    assert {k for n, k, *_ in draws if n == 3} == ({2, 3} if reach else {1, 2, 3})


def test_schedules__says_and_draws_it(tool, tmp_path, capsys):
    out = tmp_path / 'new' / 'schedules.png'
    arguments = ['--tokens', '16', '--num-iters', '1', '4', '--out', str(out)]
    tool.main(['schedules', *arguments])
    printed, reaching, _ = capsys.readouterr().out.splitlines()
    assert printed.startswith('Eq. (1): fewest 3 of 16 tokens')
    assert reaching.startswith('reach_num_morphed=True: fewest 1 of 16 tokens')
    assert reaching.endswith(' 0.00% of the draws miss their N_m')
    assert out.read_bytes().startswith(b'\x89PNG')


def test_mask_border__counts_pairs_of_neighbours(tool):
    mask = np.zeros((5, 4), dtype=bool)
    mask[1:3, 1] = True  # two patches inside: six neighbours
    mask[4, 3] = True  # one in a corner: two
    assert tool.mask_border(mask) == 8
    assert tool.mask_border(~mask) == 8


def test_masks__says_and_draws_it(tool, tmp_path, capsys):
    out = tmp_path / 'masks.png'
    tool.main(['masks', '--draws', '2000', '--out', str(out)])
    ours, release, _ = capsys.readouterr().out.splitlines()
    assert ours.startswith('the configs: 78 of 196 patches masked, mean border ')
    assert release.startswith('the release: 75 of 196 patches masked, mean border ')
    # As docs/fidelity.md has them of 20,000 draws.
    assert float(ours.split()[-1]) == pytest.approx(44.0, abs=0.7)
    assert float(release.split()[-1]) == pytest.approx(41.7, abs=0.7)
    assert out.read_bytes().startswith(b'\x89PNG')


def test_start__is_beits_here_and_not_elsewhere(tool, tmp_path, capsys):
    out = tmp_path / 'start.png'
    tool.main(['start', '--arch', '96', '3', '3', '--out', str(out)])
    rows = [
        line.strip('| ').split(' | ') for line in capsys.readouterr().out.splitlines()
    ]
    assert rows[0][1:] == [
        'DTMPretrainViT',
        "mmpretrain's BEiTPretrainViT",
        "timm's Beit",
    ]
    found = {row[0]: row[1:] for row in rows[2:8]}
    spans = [text.split(' to ') for text in found['query, key, value']]
    assert [float(low) for low, *_ in spans] == pytest.approx(
        [0.0108, 0.02, 0.02], rel=0.03
    )
    # The first and the last of three layers: divided by the root of 2 and of 6.
    first, last = found["attention's output, by layer"][0].split(' to ')
    assert float(first) == pytest.approx(0.0108 / 2**0.5, rel=0.03)
    assert float(last) == pytest.approx(0.0108 / 6**0.5, rel=0.03)
    assert out.read_bytes().startswith(b'\x89PNG')
