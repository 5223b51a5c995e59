"""The command ``sb3-diayn``."""

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import yaml

from sb3_diayn import __version__, commands, console, playing
from sb3_diayn.results import SkillEvaluation
from sb3_diayn.runs import Run, find_run
from sb3_diayn.trajectories import play_skills
from sb3_diayn.zoo import config_path, train

# Films take longer than all the rest: 20 skills of 300 steps of Hopper, rendered without a GPU,
# are five minutes.
FILM_STEPS = 300
NO_FILMS_YET = "Films take their time. Make them: sb3-diayn report {}"


def main(argv: Sequence[str] | None = None) -> int:
    """
    :param argv: arguments, None for those of the process
    :return: exit code: 0 if all went well, 2 for a mistake of the caller, 130 after Ctrl-C
    """
    args = _parser().parse_args(argv)
    # The zoo saves all arguments of a run as YAML, where a function has no place.
    run_command = args.__dict__.pop("run_command")
    try:
        run_command(args)
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130
    except (ValueError, OSError, ImportError, gym.error.Error) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _train(args: argparse.Namespace) -> None:
    folder = train(args)
    run = find_run(folder)
    evaluation = playing.measure(run, args, n_episodes=1 if args.no_report else None)
    if not args.no_report:
        _report(run, args, evaluation)
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
    run = find_run(args.run, args.env)
    skills = commands.parse_skills(args.skill, run.n_skills)
    if args.render == "rgb_array":
        folder = commands.check_writable(run.folder / "videos")
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


def _config(args: argparse.Namespace) -> None:
    print(config_path(args.algo))


def _pair(text: str) -> tuple[str, Any]:
    key, separator, value = text.partition(":")
    if not separator:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form key:value")
    return key, yaml.safe_load(value)


class _Pairs(argparse.Action):
    """Collects ``key:value`` arguments in a dict."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: Any = None) -> None:
        setattr(namespace, self.dest, dict(values))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "sb3-diayn", description="Learn skills without a reward function, and use them."
    )
    parser.add_argument("--version", action="version", version=f"sb3-diayn {__version__}")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], None], text: str) -> Any:
        sub = subparsers.add_parser(
            name,
            help=text,
            description=text,
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        )
        sub.set_defaults(run_command=run)
        return sub.add_argument

    _add_train(command("train", _train, "Learn skills and save them as a run of the RL Zoo."))
    _add_play(command("play", _play, "Play skills and print the task return of each episode."))
    _add_report(command("report", commands.report, "Measure and film skills; write a page."))
    _add_evaluate(command("evaluate", commands.evaluate, "Measure skills; write the numbers."))
    _add_plot(command("plot", commands.plot, "Draw the figures of a run or of an evaluation."))
    _add_record(command("record", commands.record, "Film skills, one episode of each."))
    _add_compare(command("compare", commands.compare, "Put runs in one table, and one figure."))
    add = command("config", _config, "Print where the provided hyperparameters are.")
    add("algo", nargs="?", default="sac", help="algorithm")
    return parser


def _add_train(add: Any) -> None:
    add("--env", help="environment id; needed unless --resume names a run")
    add("--algo", default="sac", help="algorithm, as the zoo spells it")
    add("--n-skills", type=int, help="number of skills; default: the configuration's")
    add("-n", "--total-timesteps", type=int, default=-1, help="steps; -1: the configuration's")
    add("--seed", type=int, help="seed of everything; default: a random one, printed")
    add("--n-envs", type=int, help="parallel environments; default: the configuration's")
    add("--buffer-size", type=int, help="replay buffer; default: the configuration's")
    add("--reward-scale", type=float, help="factor of the reward; default: the configuration's")
    add("--ent-coef", type=_number_or_word, help="entropy coefficient, a number or auto")
    add("-f", "--log-folder", default="logs", help="where runs are saved")
    add("--save-freq", type=int, default=-1, help="steps between checkpoints; -1: none")
    add("--save-replay-buffer", action="store_true", help="save the replay buffer at the end")
    add("--log-interval", type=int, default=-1, help="episodes between log lines; -1: SB3's")
    add("--eval-freq", type=int, default=-1, help="steps between zoo evaluations; -1: none")
    add("-i", "--resume", metavar="RUN", help="go on with this run, in a new folder")
    add("--device", default="auto", help="PyTorch device")
    add("-tb", "--tensorboard-log", default="", metavar="DIR", help="TensorBoard folder")
    add("--conf-file", metavar="YML", help="hyperparameters; default: the provided ones")
    add("--num-threads", type=int, default=-1, help="PyTorch threads; -1: its own choice")
    add("--vec-env", choices=["dummy", "subproc"], default="dummy", help="type of VecEnv")
    pair = {"type": _pair, "nargs": "+", "action": _Pairs, "metavar": "KEY:VALUE"}
    add("--hyperparams", **pair, help="override hyperparameters, e.g. learning_rate:0.001")
    add("--env-kwargs", **pair, help="arguments of the environment")
    add("--no-progress", action="store_true", help="no progress bar")
    add("--no-report", action="store_true", help="write no report at the end")
    add("--episodes", type=_positive, default=5, help="episodes of each skill for the report")
    _add_film_steps(add)
    add("--films", action="store_true", help="film each skill for the report: takes minutes")
    add("--verbose", type=int, default=0, help="1: the zoo's and SB3's messages")


def _number_or_word(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive integer")
    return int(text)


def _add_run(add: Any, **kwargs: Any) -> None:
    what = "a run's folder, e.g. logs/sac/Hopper-v5_1, or a model's zip"
    add("run", **({"metavar": "RUN", "help": what} | kwargs))
    add("--env", help="environment id; needed for a zip whose environment had none")
    add("--seed", type=int, default=0, help="seed of the environments")
    add("--device", default="auto", help="PyTorch device")


def _add_measuring(add: Any, **kwargs: Any) -> None:
    _add_run(add, **kwargs)
    add("--episodes", type=_positive, default=5, help="episodes of each skill")
    add("--no-progress", action="store_true", help="no progress bar")


def _add_film_steps(add: Any, steps: int = FILM_STEPS) -> None:
    add("--film-steps", type=_positive, default=steps, metavar="N", help="where films end")


def _add_play(add: Any) -> None:
    _add_run(add)
    add("--skill", default="all", help="index of a skill, several as 0,3,7-9, or all")
    add("--episodes", type=_positive, default=1, help="episodes of each skill")
    text = "human shows a window, rgb_array writes a film of one episode to RUN/videos"
    add("--render", choices=["human", "rgb_array"], help=text)
    _add_film_steps(add, 1000)
    add("--stochastic", action="store_true", help="sample actions instead of taking the mode")


def _add_report(add: Any) -> None:
    _add_measuring(add)
    _add_output(add, "DIR", "RUN/report")
    add("--no-films", action="store_true", help="leave out the films, which take minutes")
    add("--skills", help="which to film, as 0,3,7-9; default: all")
    _add_film_steps(add)
    text = "also write README.md, the model card for an upload to the Hugging Face hub"
    add("--model-card", action="store_true", help=text)


def _add_evaluate(add: Any) -> None:
    _add_measuring(add)
    _add_output(add, "FILE", "RUN/evaluation.json; may end in .npz")


def _add_plot(add: Any) -> None:
    text = "a run's folder, a model's zip, or an evaluation.json or .npz"
    _add_measuring(add, metavar="RUN|FILE", help=text)
    _add_output(add, "DIR", "RUN/figures")


def _add_record(add: Any) -> None:
    _add_run(add)
    _add_output(add, "DIR", "RUN/videos")
    add("--skills", help="which to film, as 0,3,7-9; default: all")
    add("--grid", action="store_true", help="also film them side by side")
    add("--format", choices=["mp4", "gif"], default="mp4", help="format of the films")
    _add_film_steps(add, 1000)


def _add_compare(add: Any) -> None:
    _add_measuring(add, nargs="+", help="runs; those with a report are not played again")
    _add_output(add, "DIR", "nothing is written")


def _add_output(add: Any, metavar: str, default: str) -> None:
    add("-o", "--output", metavar=metavar, help=f"where to write; default: {default}")


if __name__ == "__main__":
    sys.exit(main())
