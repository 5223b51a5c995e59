"""What the commands that use skills do."""

import argparse

import numpy as np

from sb3_diayn.commands import known_evaluation, parse_skills
from sb3_diayn.finetuning import finetune as finetune_run
from sb3_diayn.imitation import film_imitation
from sb3_diayn.playing import measure
from sb3_diayn.ranking import rank_skills
from sb3_diayn.retrieval import infer_skill, load_demonstration
from sb3_diayn.runs import Run, find_run
from sb3_diayn.saving import check_writable
from sb3_diayn.zoo_export import export_run, task_returns


def export(args: argparse.Namespace) -> None:
    """
    ``sb3-diayn export``

    :param args: its options
    """
    run = find_run(args.run, args.env)
    folder = check_writable(args.output or run.folder / "skills")
    for skill in _choose(run, args):
        exported = export_run(run, skill, folder)
        algo, number = exported.folder.parent.name, exported.folder.name.rpartition("_")[2]
        print(f"skill {skill:3d}: {exported.folder}")
        words = f"--algo {algo} --env {run.env_id} -f {folder} --exp-id {number}"
        print(f"           python -m rl_zoo3.enjoy {words}")


def finetune(args: argparse.Namespace) -> None:
    """
    ``sb3-diayn finetune``

    :param args: its options
    """
    run = find_run(args.run, args.env)
    skills = _choose(run, args)
    if len(skills) != 1:
        raise ValueError(
            f"skill={args.skill!r} names {len(skills)} skills; expected one to start from. Pass "
            "an index, or best."
        )
    tuned = finetune_run(args, run, skills[0])
    model = tuned.load_model(device=args.device)
    returns = task_returns(tuned, model, args.episodes, args.seed + 1)
    print(f"Task return: {np.mean(returns):.1f} +- {np.std(returns):.1f}, {len(returns)} episodes")
    print(f"Run saved in {tuned.folder}")


def imitate(args: argparse.Namespace) -> None:
    """
    ``sb3-diayn imitate``

    :param args: its options
    """
    run = find_run(args.run, args.env)
    expert = load_demonstration(args.trajectory, episode=args.episode)
    found = infer_skill(run.load_discriminator(), expert)
    print(f"The trajectory looks like skill {found.skill}.")
    ranked = np.argsort(-found.log_q.mean(axis=0))
    for skill in ranked[:3]:
        print(
            f"skill {skill:3d}   posterior {found.posterior[skill]:.3f}   "
            f"mean q {found.mean_q[skill]:.3f}   mean log q {found.log_q[:, skill].mean():.2f} nats"
        )
    print(f"Decided at step {found.decided_at + 1} of {len(found.log_q)}.")
    if not args.no_films:
        folder = check_writable(args.output or run.folder / "imitation")
        print(*film_imitation(run, args, expert, found.skill, folder), sep="\n")


def _choose(run: Run, args: argparse.Namespace) -> list[int]:
    if args.skill != "best":
        return parse_skills(args.skill, run.n_skills)
    ranked = rank_skills(known_evaluation(run) or measure(run, args))
    best, task_return = ranked[0]
    print(f"Skill {best} has the best task return: {task_return:.1f}")
    return [best]
