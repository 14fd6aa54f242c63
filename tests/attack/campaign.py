"""Attack tiny runs of shipped configs, and count what holds.

    python tests/attack/campaign.py --kills 300

Runs are killed at random moments and at each step of their saves, and resumed; file
systems fail; processes hang, stop or are slow; inputs are hostile. The same command
goes on where it was broken off. At the end stands a table: tried, held, lost.
"""

import argparse
import json
import multiprocessing
import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

os.environ.setdefault('OMP_NUM_THREADS', '1')
os.environ.setdefault('CUDA_VISIBLE_DEVICES', '')

import faults  # noqa: E402
import inputs  # noqa: E402
import kills  # noqa: E402
import processes  # noqa: E402
from runs import RECIPES, Recipe  # noqa: E402

from mmdtm.cli.scripts import script_parser  # noqa: E402

KILLS_OF_A_RUN = 6


def parse_args() -> argparse.Namespace:
    parser = script_parser(__doc__)
    parser.add_argument('--kills', type=int, default=300, help='how many')
    parser.add_argument('--seed', type=int, default=0, help='of their moments')
    parser.add_argument('--jobs', type=int, default=2, help='attacks at once')
    parser.add_argument('--work-dir', type=Path, default='work_dirs/attack')
    parser.add_argument('--only', metavar='REGEX', help='attacks whose names match')
    return parser.parse_args()


def attacks(number: int, seed: int) -> Iterator[tuple]:
    """What to do: a name, and the arguments of :func:`carry_out`."""
    for chain in range(-(-number // KILLS_OF_A_RUN)):
        recipe = RECIPES[chain % len(RECIPES)]
        of_it = min(KILLS_OF_A_RUN, number - chain * KILLS_OF_A_RUN)
        name = f'{recipe.name}, seed {seed + chain}'
        yield f'kills: {name}', 'kill', RECIPES.index(recipe), seed + chain, of_it
    for kind, module in (('disk', faults), ('process', processes), ('input', inputs)):
        for name in module.ATTACKS:
            yield f'{kind}: {name}', kind, name


def carry_out(folder: Path, kind: str, *args) -> list[tuple[str, str, str]]:
    """Do one attack.

    Returns:
        For each thing tried its row of the table, what it was, and what was lost,
        '' if nothing.
    """
    if kind == 'kill':
        recipe = RECIPES[args[0]]
        return [
            (f'kills: {recipe.name}', f'seed {args[1]}: {what}', lost)
            for what, lost in kills.kill_and_resume(recipe, folder, *args[1:])
        ]
    module = dict(disk=faults, process=processes, input=inputs)[kind]
    row, attack = module.ATTACKS[args[0]]
    try:
        attack(folder)
    except AssertionError as error:
        return [(row, args[0], f'{error}' or 'not as it should be')]
    return [(row, args[0], '')]


def attempt(name: str, folder: Path, *attack) -> tuple[str, list]:
    """:func:`carry_out`, whose own mistakes count as losses."""
    try:
        return name, carry_out(folder, *attack)
    except Exception as error:
        return name, [(attack[0], name, f'{error!r}')]


def prepare(folder: Path, recipes: Sequence[Recipe]) -> None:
    """Run recipes unbroken, and import here what they do, for all that is forked."""
    folder.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    for recipe in recipes:
        kills.unbroken(recipe, folder)
        print(f'{recipe.name}: unbroken, {time.monotonic() - begun:.0f} s', flush=True)


def table(outcomes: list) -> str:
    """Rows of tried, held and lost, and what was lost."""
    rows: dict[str, list[int]] = {}
    for row, _, lost in outcomes:
        counts = rows.setdefault(row, [0, 0, 0])
        counts[0] += 1
        counts[1 + bool(lost)] += 1
    total = [sum(column) for column in zip(*rows.values(), strict=True)]
    width = max(map(len, [*rows, 'all']))
    lines = [f'{"":{width}}  tried   held   lost']
    for row, counts in [*rows.items(), ('all', total)]:
        lines.append(f'{row:{width}}' + ''.join(f'{n:7}' for n in counts))
    lines += [f'LOST: {row}: {what}: {lost}' for row, what, lost in outcomes if lost]
    return '\n'.join(lines) + '\n'


def main() -> int:
    """0 if everything held."""
    args = parse_args()
    folder = args.work_dir.absolute()
    prepare(folder, RECIPES[: 1 if args.only else None])
    record = folder / f'outcomes_seed{args.seed}.jsonl'
    done = {}
    if record.exists():
        for line in record.read_text().splitlines():
            name, outcomes = json.loads(line)
            done[name] = outcomes
    todo = [
        attack
        for attack in attacks(args.kills, args.seed)
        if attack[0] not in done and re.search(args.only or '', attack[0])
    ]
    print(f'{len(done)} attacks done, {len(todo)} to come.', flush=True)
    begun = time.monotonic()
    context = multiprocessing.get_context('fork')
    with ProcessPoolExecutor(args.jobs, context) as pool, record.open('a') as file:
        futures = [pool.submit(attempt, a[0], folder, *a[1:]) for a in todo]
        for number, future in enumerate(as_completed(futures), 1):
            name, outcomes = future.result()
            done[name] = outcomes
            print(json.dumps([name, outcomes]), file=file, flush=True)
            gone = time.monotonic() - begun
            left = gone / number * (len(todo) - number)
            lost = sum(bool(o[2]) for o in outcomes)
            print(
                f'[{number}/{len(todo)}, {gone:.0f} s gone, about {left:.0f} s left] '
                f'{name}: {len(outcomes) - lost} held, {lost} lost',
                flush=True,
            )
    outcomes = sorted(tuple(one) for all_of_it in done.values() for one in all_of_it)
    text = f'Seed {args.seed}, {KILLS_OF_A_RUN} kills of each run.\n' + table(outcomes)
    (folder / f'table_seed{args.seed}.txt').write_text(text)
    print(text)
    return int(any(lost for _, _, lost in outcomes))


if __name__ == '__main__':
    sys.exit(main())
