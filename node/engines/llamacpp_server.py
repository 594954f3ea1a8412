"""The llama.cpp server as a process: one GGUF file behind an OpenAI-compatible port on 127.0.0.1.

    python -m node.engines.llamacpp_server --gguf MODEL.gguf --alias NAME --port PORT

It imports nothing of this project and can be started by its path. It runs until SIGTERM or SIGINT.
The port asks for no key: every user of this machine can use it, so nothing that would show another
request's prompt is served (`/slots` and the web page are off, and so is the cache of old prompts in
main memory).

One thread is the default on purpose. llama.cpp's threads spin while they wait for each other, and
on a machine whose cores are busy a second thread makes it many times slower.
"""

import argparse
import signal
import threading
from pathlib import Path

_LOG_ERRORS_AND_WARNINGS = 2


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="llamacpp_server", description="Serve one GGUF file.")
    parser.add_argument("--gguf", type=Path, required=True, help="the model file")
    parser.add_argument("--alias", required=True, help="the model's name in requests and answers")
    parser.add_argument("--port", type=int, required=True, help="port on 127.0.0.1")
    parser.add_argument("--slots", type=int, default=1, help="requests at once")
    parser.add_argument("--context", type=int, default=2048, help="tokens of context per slot")
    parser.add_argument("--threads", type=int, default=1, help="threads that compute")
    parser.add_argument("--embeddings", action="store_true", help="serve embeddings, too")
    return parser.parse_args()


def main() -> None:
    """Serve until a signal says stop."""
    import xllamacpp  # noqa: PLC0415  # so that --help works where the engine is not installed

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    arguments = _arguments()
    params = xllamacpp.CommonParams()
    params.model.path = str(arguments.gguf)
    params.model_alias = {arguments.alias}
    params.hostnames = ["127.0.0.1"]
    params.port = arguments.port
    params.n_parallel = arguments.slots
    params.n_ctx = arguments.slots * arguments.context
    params.cpuparams.n_threads = arguments.threads
    params.cpuparams_batch.n_threads = arguments.threads
    if arguments.embeddings:
        params.embedding = True
        params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    params.cache_ram_mib = 0
    params.endpoint_metrics = True
    params.endpoint_slots = False
    params.ui = False
    params.cors_origins = "http://127.0.0.1"
    params.cors_credentials = False
    params.prefill_assistant = False
    params.verbosity = _LOG_ERRORS_AND_WARNINGS
    server = xllamacpp.Server(params)
    print(f"serving {arguments.alias} at {server.listening_address}", flush=True)  # noqa: T201
    stop.wait()


if __name__ == "__main__":
    main()
