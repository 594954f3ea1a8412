"""Inference engines: how they are started, watched, spoken to and measured.

An engine is anything that answers `/v1/chat/completions` over HTTP: the llama.cpp server or vLLM as
a child process, or a server that runs elsewhere and is attached by its URL. Nothing outside this
package knows which one it is.

    spec.py        what an engine is: command, environment, features, names of its metrics
    supervisor.py  keeps one running: start, readiness, restart, stop
    client.py      streams completions from it
    trial.py       what it does of what it is said to do
    measure.py     what it can promise
"""
