# krontime with the tested versions: docker build -t krontime --build-arg TORCH_INDEX=URL_OF_CPU_WHEELS .
# Without TORCH_INDEX torch comes with CUDA, several gigabytes.
FROM python:3.11-slim
ARG TORCH_INDEX=
WORKDIR /krontime
COPY requirements.lock ./
RUN pip install --no-cache-dir ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch==2.13.0 \
    && pip install --no-cache-dir --no-deps --require-hashes -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY configs configs
COPY src src
RUN pip install --no-cache-dir --no-deps .
WORKDIR /data
ENTRYPOINT ["krontime"]
