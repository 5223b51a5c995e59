"""The command ``sb3-diayn``."""

import argparse
import shlex
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import gymnasium as gym

from sb3_diayn import __version__, arguments, commands, console, downstream_commands, playing, sweep
from sb3_diayn.provenance import save_provenance
from sb3_diayn.results import SkillEvaluation
from sb3_diayn.runs import Run, find_run, require_zoo
from sb3_diayn.saving import check_writable
from sb3_diayn.trajectories import play_skills
from sb3_diayn.zoo import config_path, train

NO_FILMS_YET = "Films take their time. Make them: sb3-diayn report {}"


def main(argv: Sequence[str] | None = None) -> int:
    """
    :param argv: arguments, None for those of the process
    :return: exit code: 0 if all went well, 2 for a mistake of the caller, 130 after Ctrl-C
    """
    args = _parser().parse_args(argv)
    args.command = shlex.join(["sb3-diayn", *(sys.argv[1:] if argv is None else argv)])
    # The zoo saves all arguments of a run as YAML, where a function has no place.
    run_command = args.__dict__.pop("run_command")
    try:
        run_command(args)
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130
    except (ValueError, OSError, ImportError, gym.error.Error) as error:
        if getattr(args, "verbose", 0):  # where in the caller's own code it began
            traceback.print_exc()
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _train(args: argparse.Namespace) -> None:
    if args.episodes is None:
        args.episodes = 1 if args.no_report else 5
    start, cpu_start = time.perf_counter(), time.process_time()
    folder = train(args)
    wall_time, cpu_time = time.perf_counter() - start, time.process_time() - cpu_start
    run = find_run(folder)
    evaluation = playing.measure(run, args)
    evaluation.save(folder / "evaluation.json")
    if not args.no_report:
        _report(run, args, evaluation)
    save_provenance(folder, args.command, wall_time, cpu_time, args.device)
    console.print_table(evaluation)
    print(f"Run saved in {folder}\nPlay it:      sb3-diayn play {folder}")


def _report(run: Run, args: argparse.Namespace, evaluation: SkillEvaluation) -> None:
    """The training is done and saved, so a report that cannot be made is no error."""
    name = str(run.folder)
    skills = range(run.n_skills)
    options: dict[str, Any] = {"why_no_films": NO_FILMS_YET.format(name)}
    if args.films:
        options["films"] = lambda folder: playing.film(run, args, skills, folder)
    try:
        page = commands.make_report(run, evaluation, run.folder / "report", name, **options)
    except (ImportError, OSError) as error:
        print(f"The report is left out: {error}")
    else:
        console.print_verdicts(evaluation)
        print(f"Report:       {page}")


def _play(args: argparse.Namespace) -> None:
    run = find_run(args.run, args.env, args.env_kwargs)
    skills = commands.parse_skills(args.skill, run.n_skills)
    if args.render == "rgb_array":
        folder = check_writable(run.folder / "videos")
        films = playing.film(run, args, skills, folder, deterministic=not args.stochastic)
        print(*films.values(), sep="\n")
        return
    model, env = playing.open_run(run, args, 1, args.render)
    episodes = play_skills(
        model,
        env,
        [skill for skill in skills for _ in range(args.episodes)],
        deterministic=not args.stochastic,
        seed=args.seed,
    )
    for episode in episodes:
        task_return = episode.task_rewards.sum()
        print(f"skill {episode.skill:3d}   task return {task_return:9.2f}   {len(episode)} steps")
    env.close()


def _tune(args: argparse.Namespace) -> None:
    require_zoo()
    from sb3_diayn.tuning import tune

    tune(args)


def _config(args: argparse.Namespace) -> None:
    print(config_path(args.algo))


# Name, options, body and one line of help of each command.
Command: TypeAlias = tuple[
    str, Callable[[arguments.Add], None], Callable[[argparse.Namespace], None], str
]
COMMANDS: list[Command] = [
    ("train", arguments.train, _train, "Learn skills and save them as a run of the RL Zoo."),
    ("play", arguments.play, _play, "Play skills and print the task return of each episode."),
    ("report", arguments.report, commands.report, "Measure and film skills; write a page."),
    ("evaluate", arguments.evaluate, commands.evaluate, "Measure skills; write the numbers."),
    ("plot", arguments.plot, commands.plot, "Draw the figures of a run or of an evaluation."),
    ("record", arguments.record, commands.record, "Film skills, one episode of each."),
    ("compare", arguments.compare, commands.compare, "Put runs in one table, and one figure."),
    ("export", arguments.export, downstream_commands.export, "Make plain models of skills."),
    ("finetune", arguments.finetune, downstream_commands.finetune, "Learn the task from a skill."),
    ("imitate", arguments.imitate, downstream_commands.imitate, "Name the skill like an expert."),
    ("sweep", arguments.sweep, sweep.run_sweep, "Learn a grid of settings and seeds."),
    ("tune", arguments.tune, _tune, "Search for hyperparameters, judged by the skills."),
    ("config", arguments.config, _config, "Print where the provided hyperparameters are."),
]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "sb3-diayn", description="Learn skills without a reward function, and use them."
    )
    parser.add_argument("--version", action="version", version=f"sb3-diayn {__version__}")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, add_options, run_command, text in COMMANDS:
        sub = subparsers.add_parser(
            name,
            help=text,
            description=text,
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        )
        sub.set_defaults(run_command=run_command)
        add_options(sub.add_argument)
    return parser


if __name__ == "__main__":
    sys.exit(main())
