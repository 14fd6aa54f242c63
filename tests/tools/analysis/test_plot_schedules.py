import pytest

from mmdtm.morphing import merge_schedule


@pytest.mark.parametrize('reach', [False, True])
def test_outcomes__are_those_of_all_draws(load_tool, reach):
    draws = load_tool('plot_schedules').outcomes(9, (1, 3), reach)
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


def test_main__says_and_draws_it(load_tool, tmp_path, capsys):
    out = tmp_path / 'new' / 'schedules.png'
    arguments = ['--tokens', '16', '--num-iters', '1', '4', '--out', str(out)]
    load_tool('plot_schedules').main(arguments)
    printed, reaching, _ = capsys.readouterr().out.splitlines()
    assert printed.startswith('Eq. (1): fewest 3 of 16 tokens')
    assert reaching.startswith('reach_num_morphed=True: fewest 1 of 16 tokens')
    assert reaching.endswith(' 0.00% of the draws miss their N_m')
    assert out.read_bytes().startswith(b'\x89PNG')
