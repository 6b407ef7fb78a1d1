"""An agent on the `openai` package with a loop written by hand.

It keeps what the documentation of chat completions names, `content` and `tool_calls`, and builds the assistant message
it replays from these two. A model that thinks also sends `reasoning_content`; this loop does not know the field.
"""

import json
import sys

from openai import OpenAI

from exec_tool import EXEC_TOOL, run_command_line
from program import Job, NoFinalAnswer, main


def converse(job: Job) -> str:
    client = OpenAI(max_retries=0, timeout=30, default_headers=job.headers)
    messages, final_text = [], ""
    for prompt in job.prompts():
        messages.append({"role": "user", "content": prompt})
        final_text = answer_to(messages, client, job)
        messages.append({"role": "assistant", "content": final_text})
    return final_text


def answer_to(messages: list, client: OpenAI, job: Job) -> str:
    ask = streamed_answer if job.stream else whole_answer
    while job.may_ask():
        content, tool_calls = ask(client, job.model, messages)
        job.answered()
        if not tool_calls:
            return content
        messages.append({"role": "assistant", "content": content or None, "tool_calls": tool_calls})
        messages.extend(tool_result(call) for call in tool_calls)
    raise NoFinalAnswer(job.rounds)


def streamed_answer(client: OpenAI, model: str, messages: list) -> tuple[str, list]:
    content, tool_calls = "", {}
    stream = client.chat.completions.create(model=model, messages=messages, tools=[EXEC_TOOL], stream=True)
    for chunk in stream:
        if not chunk.choices:
            continue
        delta = chunk.choices[0].delta
        content += delta.content or ""
        for piece in delta.tool_calls or []:
            call = tool_calls.setdefault(piece.index, new_call("", "", ""))
            call["id"] = piece.id or call["id"]
            if piece.function:
                call["function"]["name"] += piece.function.name or ""
                call["function"]["arguments"] += piece.function.arguments or ""
    return content, [tool_calls[index] for index in sorted(tool_calls)]


def whole_answer(client: OpenAI, model: str, messages: list) -> tuple[str, list]:
    reply = client.chat.completions.create(model=model, messages=messages, tools=[EXEC_TOOL])
    message = reply.choices[0].message
    calls = [new_call(call.id, call.function.name, call.function.arguments) for call in message.tool_calls or []]
    return message.content or "", calls


def new_call(call_id: str, name: str, arguments: str) -> dict:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def tool_result(call: dict) -> dict:
    output = run_command_line(json.loads(call["function"]["arguments"])["command"])
    return {"role": "tool", "tool_call_id": call["id"], "content": output}


if __name__ == "__main__":
    sys.exit(main(__doc__.splitlines()[0], converse))
