"""A scripted engine, no model: an OpenAI-compatible server that streams fixed words.

    python -m bench.gateway_scripted_engine --model NAME --port N

What it streams stands at the end of the last message, "… script 48 20": 48 tokens, one each 20 ms;
with 0 it sends as fast as it can. Without a script: `max_tokens` of them, one each 60 ms. At the
end "reverse WORD" streams the word backwards, and "refuse WORD" is refused by quoting the prompt.
As vLLM's server does, it runs on asyncio, writes each event by itself and yields in between, so
that concurrent streams take turns. Each word is one token of the demo model's tokenizer.
"""

import argparse
import asyncio
import json
import re
from collections.abc import Iterator
from functools import partial
from typing import Any, Final

_TEXT: Final = "the sea was calm and the light of the old tower went round over the dark water"
WORDS: Final = tuple(_TEXT.split())
_SCRIPT: Final = re.compile(r"script (\d+) (\d+)\Z")
_REVERSE: Final = re.compile(r"reverse (\S+)\Z")
_REFUSE: Final = re.compile(r"refuse (\S+)\Z")
_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)


class Script:
    """What one request is answered: tokens, and seconds between them."""

    def __init__(self, body: dict[str, Any]) -> None:
        self.model = str(body.get("model"))
        self.prompt = str(body["messages"][-1]["content"])
        self.usage = bool((body.get("stream_options") or {}).get("include_usage"))
        self.refused = bool(_REFUSE.search(self.prompt))
        backwards = _REVERSE.search(self.prompt)
        self.words = tuple(backwards[1][::-1]) if backwards else tuple(f" {word}" for word in WORDS)
        found = _SCRIPT.search(self.prompt)
        most = int(body.get("max_tokens") or body.get("max_completion_tokens") or 16)
        self.tokens = int(found[1]) if found else len(self.words) if backwards else most
        self.interval_s = (int(found[2]) if found else 60) / 1000

    def events(self) -> Iterator[bytes]:
        """The role, each token, the end, perhaps usage, and the end mark."""
        yield self._event([{"index": 0, "delta": {"role": "assistant", "content": ""}}])
        for number in range(self.tokens):
            delta = {"content": self.words[number % len(self.words)]}
            choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}
            yield self._event([choice])
        yield self._event([{"index": 0, "delta": {}, "finish_reason": "stop"}])
        if self.usage:
            yield self._event([], usage=self._counts())
        yield b"data: [DONE]\n\n"

    def whole(self) -> dict[str, Any]:
        """The same as one body, for requests that don't stream."""
        text = "".join(self.words[number % len(self.words)] for number in range(self.tokens))
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        head = {"id": "chatcmpl-scripted", "object": "chat.completion", "created": 0}
        return head | {"model": self.model, "choices": [choice], "usage": self._counts()}

    def _counts(self) -> dict[str, int]:
        prompt = len(self.prompt.split())
        total = prompt + self.tokens
        return {
            "prompt_tokens": prompt,
            "completion_tokens": self.tokens,
            "total_tokens": total,
        }

    def _event(self, choices: list[dict[str, Any]], **more: Any) -> bytes:
        event = {"id": "chatcmpl-scripted", "object": "chat.completion.chunk", "created": 0}
        document = event | {"model": self.model, "choices": choices} | more
        return b"data: " + json.dumps(document, separators=(",", ":")).encode() + b"\n\n"


async def serve(model: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one connection's requests, one after the other."""
    try:
        while True:
            path, body = await _request(reader)
            if path == "/v1/chat/completions":
                asked = json.loads(body)
                script = Script(asked)
                if script.refused:
                    error = {"message": f"can't answer {script.prompt!r}", "type": "BadRequest"}
                    _answer(writer, {"error": error}, b"400 Bad Request")
                elif asked.get("stream"):
                    await _stream(script, writer)
                else:
                    _answer(writer, script.whole())
            else:
                _answer(writer, {"object": "list", "data": [{"id": model}]})
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass  # the client has gone
    finally:
        writer.close()


async def _request(reader: asyncio.StreamReader) -> tuple[str, bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    lines = head.split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines[1:] if ": " in line)
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return lines[0].split(" ")[1], body


async def _stream(script: Script, writer: asyncio.StreamWriter) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    writer.write(_HEAD)
    for number, event in enumerate(script.events()):
        writer.write(b"%x\r\n%s\r\n" % (len(event), event))
        due = began + number * script.interval_s
        await asyncio.sleep(max(0.0, due - loop.time()) if script.interval_s else 0)
        await writer.drain()
    writer.write(b"0\r\n\r\n")


def _answer(writer: asyncio.StreamWriter, value: dict[str, Any], status: bytes = b"200 OK") -> None:
    body = json.dumps(value).encode()
    head = b"HTTP/1.1 %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    writer.write(head % (status, len(body)) + body)


async def main(model: str, port: int) -> None:
    """Serve until killed."""
    server = await asyncio.start_server(partial(serve, model), "127.0.0.1", port)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--port", type=int, required=True)
    chosen = parser.parse_args()
    asyncio.run(main(chosen.model, chosen.port))
