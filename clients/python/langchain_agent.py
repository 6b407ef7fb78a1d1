"""An agent on `langchain-openai`: a chat model with a bound tool, and the usual loop.

The package turns each answer into an AIMessage and each AIMessage back into a request message; `reasoning_content` is in
neither.
"""

import sys

from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import Runnable
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

from exec_tool import run_command_line
from program import Job, NoFinalAnswer, main


@tool("exec")
def exec_tool(command: str) -> str:
    """Run a command on this machine and return what it prints."""
    return run_command_line(command)


def converse(job: Job) -> str:
    model = ChatOpenAI(model=job.model, max_retries=0, timeout=30, default_headers=job.headers)
    agent = model.bind_tools([exec_tool])
    messages, final_text = [], ""
    for prompt in job.prompts():
        messages.append(HumanMessage(prompt))
        final_text = answer_to(messages, agent, job)
    return final_text


def answer_to(messages: list, agent: Runnable, job: Job) -> str:
    while job.may_ask():
        answer = streamed_answer(agent, messages) if job.stream else agent.invoke(messages)
        job.answered()
        messages.append(answer)
        if not answer.tool_calls:
            return answer.text
        messages.extend(exec_tool.invoke(call) for call in answer.tool_calls)
    raise NoFinalAnswer(job.rounds)


def streamed_answer(agent: Runnable, messages: list) -> AIMessage:
    whole = None
    for chunk in agent.stream(messages):
        whole = chunk if whole is None else whole + chunk
    if whole is None:
        raise RuntimeError("the stream held no message")
    return whole


if __name__ == "__main__":
    sys.exit(main(__doc__.splitlines()[0], converse))
