"""What each command may run of other people's files, in a sentence at the end of its help."""

PAGE = "docs/pages/security.md"
RUN = (
    "Opening RUN can run code of its model and of the files in a run's folder: open only what you "
    "trust"
)
CONFIG = "A file for --conf-file can run code: use only what you trust."

TRUST = {
    name: f"{RUN}. Which files: {PAGE}"
    for name in ("play", "report", "evaluate", "record", "compare", "export", "finetune")
} | {
    "plot": f"{RUN}; an evaluation.json or .npz runs none. Which files: {PAGE}",
    "imitate": f"{RUN}; with --no-films, a zip outside of a run's folder runs none. "
    f"Which files: {PAGE}",
    "train": f"With --resume: {RUN[0].lower()}{RUN[1:]}. {CONFIG} Which files: {PAGE}",
    "tune": f"{CONFIG} See {PAGE}",
    "sweep": f"{CONFIG} See {PAGE}",
}
