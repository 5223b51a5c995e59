# A CPU image with the command line, reports and rendering without a display.
FROM python:3.11-slim

# EGL and Mesa's software renderer, for MuJoCo.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libegl1 libgl1 libgl1-mesa-dri libglib2.0-0 \
    && rm -rf /var/lib/apt/lists/*
ENV MUJOCO_GL=egl SDL_VIDEODRIVER=dummy SDL_AUDIODRIVER=dummy PYTHONUNBUFFERED=1

# More options for pip, for example an index with PyTorch's CPU builds.
ARG PIP_OPTIONS=""
WORKDIR /opt/sb3-diayn
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY sb3_diayn sb3_diayn
COPY zoo_configs zoo_configs
RUN pip install --no-cache-dir $PIP_OPTIONS -c constraints.txt ".[zoo,report,box2d]"

RUN useradd --create-home diayn && mkdir /work && chown diayn /work
USER diayn
WORKDIR /work
ENTRYPOINT ["sb3-diayn"]
CMD ["--help"]
