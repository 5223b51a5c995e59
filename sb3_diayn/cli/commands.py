"""
The commands and their options. What a command does is in another module, which imports PyTorch and
Stable-Baselines3 and therefore takes seconds to import: ``main`` imports it once the options are
right. Help, completion and the answer to a mistyped word need this module only.
"""

import argparse

import shtab

from sb3_diayn import __version__
from sb3_diayn.cli.options import (
    ALGO_DEFAULT,
    N_FILMS,
    Commands,
    Parser,
    add_command,
    add_episodes,
    add_gym_packages,
    add_stochastic,
    baseline_options,
    config_options,
    env_kwargs_options,
    film_options,
    jobs,
    key_and_values,
    key_and_words,
    learning_options,
    logging_options,
    measuring_options,
    output_options,
    playing_options,
    positive,
    run_options,
    skill_options,
    words,
    zoo_run_options,
)

SKILLS = "an index, several as 0,3,7-9, all, or best, by task return"


def make_parser() -> argparse.ArgumentParser:
    """:return: the parser of all commands"""
    parser = Parser(
        "sb3-diayn",
        description="Learn skills without a reward function, and use them.",
        epilog="example: sb3-diayn train --env MountainCarContinuous-v0 --seed 1",
    )
    parser.add_argument("--version", action="version", version=f"sb3-diayn {__version__}")
    shtab.add_argument_to(parser, help="print what completes commands in this shell, and exit")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for add in (
        add_train,
        add_play,
        add_view,
        add_report,
        add_evaluate,
        add_plot,
        add_record,
        add_compare,
        add_push,
        add_export,
        add_finetune,
        add_imitate,
        add_sweep,
        add_tune,
        add_config,
    ):
        add(commands)
    return parser


def train_options() -> Parser:
    """All options of ``train``, which a sweep reads, too."""
    parser = Parser(
        "sb3-diayn train",
        add_help=False,
        parents=[config_options(), learning_options(), logging_options(), film_options()],
    )
    add = parser.add_argument_group("where to start, and what to do at the end").add_argument
    text = "values of a published code: paper, original-code, seed or urlb"
    add("--preset", metavar="NAME", help=text)
    add("-i", "--resume", metavar="RUN", help="resume this run or checkpoint, in a new folder")
    add("--no-report", action="store_true", help="write no report at the end")
    text = "episodes of each skill for the evaluation; default: 5, with --no-report 2"
    add("--episodes", type=positive, help=text)
    text = f"film all skills for the report, or none; default: the best {N_FILMS}"
    add("--films", action=argparse.BooleanOptionalAction, help=text)
    return parser


def add_train(commands: Commands) -> None:
    """The options of ``sb3-diayn train``."""
    example = "--env Hopper-v5 --n-skills 20 --seed 1 --live"
    add_command(
        commands,
        "train",
        "training:train_command",
        "Learn skills and save them as a run of the RL Zoo.",
        train_options(),
        example=example,
    )


def add_play(commands: Commands) -> None:
    """The options of ``sb3-diayn play``."""
    run = run_options(nargs="?", help="a run's folder, or a model's zip; or see --exp-id")
    parents = (run, zoo_run_options(), env_kwargs_options(), skill_options(SKILLS))
    example = "logs/sac/Hopper-v5_1 --skill best --render human"
    parser = add_command(
        commands,
        "play",
        "evaluation:play",
        "Play skills and print the task return of each episode.",
        *parents,
        playing_options(),
        film_options(None),
        example=example,
    )
    add = parser.add_argument
    add("--episodes", type=positive, default=1, help="episodes of each skill")
    text = "human shows a window, rgb_array writes a film of one episode to RUN/videos"
    add("--render", choices=["human", "rgb_array"], help=text)
    add_stochastic(parser)


def add_view(commands: Commands) -> None:
    """The options of ``sb3-diayn view``."""
    run = run_options(nargs="?", help="a run's folder, or a model's zip; or see --exp-id")
    text = "an index to begin with, or best, by task return; two, as 3,7, are there to be mixed"
    parents = (run, zoo_run_options(), env_kwargs_options(), skill_options(text, default="0"))
    example = "logs/sac/Hopper-v5_1 --skill 3"
    add_stochastic(
        add_command(
            commands,
            "view",
            "evaluation:view",
            "Open a window in which keys switch the skill, mix two, pause and reset.",
            *parents,
            playing_options(),
            example=example,
        )
    )


def add_report(commands: Commands) -> None:
    """The options of ``sb3-diayn report``."""
    measuring = (measuring_options(), baseline_options())
    skills = skill_options(f"which to film: {SKILLS}", alias=True)
    parents = (run_options(), skills, *measuring, env_kwargs_options(), film_options())
    output = output_options("DIR", "RUN/report")
    example = "logs/sac/Hopper-v5_1 --film-seconds 5"
    parser = add_command(
        commands,
        "report",
        "evaluation:report",
        "Measure and film skills; write a page.",
        *parents,
        output,
        example=example,
    )
    add = parser.add_argument
    add("--no-films", action="store_true", help="leave out the films, which take their time")
    text = "also write README.md, the model card for an upload to the Hugging Face hub"
    add("--model-card", action="store_true", help=text)


def add_evaluate(commands: Commands) -> None:
    """The options of ``sb3-diayn evaluate``."""
    output = output_options("FILE", "RUN/evaluation.json; may end in .npz")
    measuring = (measuring_options(), baseline_options())
    parents = (run_options(), *measuring, env_kwargs_options(), output)
    example = "logs/sac/Hopper-v5_1 --episodes 10 -o hopper.npz"
    add_command(
        commands,
        "evaluate",
        "evaluation:evaluate",
        "Measure skills; write the numbers.",
        *parents,
        example=example,
    )


def add_plot(commands: Commands) -> None:
    """The options of ``sb3-diayn plot``."""
    text = "a run's folder, a model's zip, or an evaluation.json or .npz"
    run = run_options(metavar="RUN|FILE", help=text)
    output = output_options("DIR", "RUN/figures")
    parents = (run, measuring_options(), env_kwargs_options(), output)
    add_command(
        commands,
        "plot",
        "evaluation:plot",
        "Draw the figures of a run or of an evaluation.",
        *parents,
        example="logs/sac/Hopper-v5_1 -o figures",
    )


def add_record(commands: Commands) -> None:
    """The options of ``sb3-diayn record``."""
    skills = skill_options(f"which to film: {SKILLS}", alias=True)
    parents = (run_options(), skills, env_kwargs_options(), playing_options(), film_options(None))
    output = output_options("DIR", "RUN/videos")
    example = "logs/sac/Hopper-v5_1 --skill 0,3,7-9 --grid"
    parser = add_command(
        commands,
        "record",
        "evaluation:record",
        "Film skills, one episode of each.",
        *parents,
        output,
        example=example,
    )
    add = parser.add_argument
    add("--grid", action="store_true", help="also film them side by side")
    add("--format", choices=["mp4", "gif"], default="mp4", help="format of the films")


def add_compare(commands: Commands) -> None:
    """The options of ``sb3-diayn compare``."""
    text = "runs, or an evaluation.json or .npz; those with an evaluation that fits are not played"
    runs = run_options(nargs="+", metavar="RUN|FILE", help=text)
    output = output_options("DIR", "nothing is written")
    measuring = measuring_options(reuses_report=True)
    example = "logs/sac/Hopper-v5_1 logs/sac/Hopper-v5_2 -o comparison"
    add_command(
        commands,
        "compare",
        "evaluation:compare",
        "Put runs in one table, and on one page with their films.",
        runs,
        measuring,
        output,
        example=example,
    )


def add_push(commands: Commands) -> None:
    """The options of ``sb3-diayn push``."""
    measuring = measuring_options(reuses_report=True)
    parents = (run_options(), measuring, env_kwargs_options(), film_options())
    output = output_options("DIR", "a temporary folder; with --dry-run RUN/hub/NAME")
    example = "logs/sac/Hopper-v5_1 --repo-id user/hopper-skills"
    parser = add_command(
        commands,
        "push",
        "sharing:push",
        "Upload a run to the Hugging Face hub: model, files of the zoo, films and a model card.",
        *parents,
        output,
        example=example,
    )
    add = parser.add_argument_group("where to upload").add_argument
    add("--repo-id", required=True, metavar="USER/NAME", help="repository, created if need be")
    add("--private", action="store_true", help="create one that only its owner sees")
    add("--token", help="a token that may write; default: the one of hf auth login")
    text = "message of the commit"
    add("--commit-message", default="Upload skills with sb3-diayn", metavar="TEXT", help=text)
    add("--no-films", action="store_true", help="leave out the films")
    text = "only write the folder that would be uploaded, and list its files"
    add("--dry-run", action="store_true", help=text)


def add_export(commands: Commands) -> None:
    """The options of ``sb3-diayn export``."""
    measuring = measuring_options(reuses_report=True)
    parents = (run_options(), skill_options(SKILLS, default="best"), measuring)
    output = output_options("DIR", "RUN/skills")
    example = "logs/sac/Hopper-v5_1 --skill best -o skills"
    add_command(
        commands,
        "export",
        "downstream:export",
        "Make plain models of skills.",
        *parents,
        output,
        example=example,
    )


def add_finetune(commands: Commands) -> None:
    """The options of ``sb3-diayn finetune``."""
    skill = skill_options("index of a skill, or best, by task return", default="best")
    how = (learning_options(knows_auto=False), logging_options(of_skills=False))
    parents = (run_options(), skill, *how)
    example = "logs/sac/Hopper-v5_1 --skill best -n 20000"
    parser = add_command(
        commands,
        "finetune",
        "downstream:finetune_command",
        "Learn the task from a skill.",
        *parents,
        example=example,
    )
    add_episodes(parser, reuses_report=True)
    add = parser.add_argument
    advice = "keep the policy, start critics afresh: advised for PPO, not for SAC"
    add("--reset-critics", action="store_true", help=advice)


def add_imitate(commands: Commands) -> None:
    """The options of ``sb3-diayn imitate``."""
    parents = (run_options(), playing_options(), output_options("DIR", "RUN/imitation"))
    example = "logs/sac/Hopper-v5_1 --trajectory expert.npz"
    parser = add_command(
        commands,
        "imitate",
        "downstream:imitate",
        "Name the skill like an expert.",
        *parents,
        film_options(),
        example=example,
    )
    add = parser.add_argument
    what = "an expert's states: .npz with observations, and actions and seed for its film; .npy; or"
    add("--trajectory", required=True, metavar="FILE", help=f"{what} the id of a Minari dataset")
    add("--episode", type=int, default=0, help="which episode of a Minari dataset")
    add("--no-films", action="store_true", help="name the skill only")


def add_sweep(commands: Commands) -> None:
    """The options of ``sb3-diayn sweep``."""
    example = "--env Hopper-v5 --seeds 5 --n-skills 10,20 -- --device cpu"
    parser = add_command(
        commands, "sweep", "sweep:run_sweep", "Learn a grid of settings and seeds.", example=example
    )
    add = parser.add_argument
    names, text = ("--env", "--envs"), "environment ids, or PACKAGE:ID"
    add(*names, dest="envs", nargs="+", required=True, metavar="ENV", help=text)
    add_gym_packages(parser)
    text = f"algorithms; default: the preset's, or {ALGO_DEFAULT}"
    add("--algo", type=words, metavar="A,B", help=text)
    add("--seeds", type=positive, default=5, metavar="N", help="seeds of each setting: 0 to N-1")
    add("--n-skills", type=words, metavar="K,K", help="numbers of skills; default: the config's")
    text = "values of a hyperparameter, e.g. ent_coef=0.1,0.2 or DIAYNCallback.learning_rate=1e-3"
    add("--param", type=key_and_words, action="append", default=[], metavar="KEY=V,V", help=text)
    add("-n", "--total-timesteps", type=int, default=-1, help="steps; -1: the configuration's")
    add("-o", "--output", default="logs/sweep", metavar="DIR", help="folder of all runs")
    add("--backend", choices=["loky", "ray", "dask"], default="loky", help="where runs go")
    add("--address", help="of a Ray or Dask cluster; default: one is started on this machine")
    add("--n-jobs", type=jobs, default=-1, help="runs at once; -1: as many as there are cores")
    add("--verbose", type=int, default=0, help="1: where an error came from")
    text = "after --: options of sb3-diayn train for every run, e.g. -- --device cpu --no-report"
    add("train_options", nargs="*", metavar="-- OPTION", help=text)


def add_tune(commands: Commands) -> None:
    """The options of ``sb3-diayn tune``."""
    parents = (config_options(), learning_options())
    example = "--env Hopper-v5 --n-trials 30 --storage sqlite:///hopper.db"
    parser = add_command(
        commands,
        "tune",
        "training:tune_command",
        "Search for hyperparameters, judged by the skills.",
        *parents,
        example=example,
    )
    add = parser.add_argument_group("how to search").add_argument
    add("--n-trials", type=positive, default=30, help="trials of this process")
    add("--max-total-trials", type=positive, help="trials of all processes together")
    text = "database of the study, sqlite:///study.db or study.log; default: one in the log folder"
    add("--storage", metavar="URL", help=text)
    add("--study-name", help="study to start or to join; default: algorithm and environment")
    add("--sampler", choices=["tpe", "random"], default="tpe", help="Optuna's sampler")
    add("--pruner", choices=["median", "halving", "none"], default="median", help="its pruner")
    add("--n-startup-trials", type=int, default=10, help="random trials before the sampler")
    add("--n-evaluations", type=positive, default=4, help="evaluations of each trial")
    add("--episodes", type=positive, default=2, help="episodes of each skill in an evaluation")
    text = "what to search in place of all: one value, choices, or the two ends of a number"
    add("--space", type=key_and_values, nargs="+", default=[], metavar="NAME=V,V", help=text)


def add_config(commands: Commands) -> None:
    """The options of ``sb3-diayn config``."""
    parser = add_command(
        commands,
        "config",
        "training:config_command",
        "Print where the provided hyperparameters are.",
        example="ppo",
    )
    text = "an algorithm, or another provided file, e.g. ppo_displacement or paper"
    parser.add_argument("algo", nargs="?", default="sac", help=text)
