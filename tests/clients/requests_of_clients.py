"""Requests as Claude Code and Codex send them, built from descriptions of their traffic."""

from typing import Any

EPHEMERAL = {"cache_control": {"type": "ephemeral"}}
CLAUDE_HEADERS = {
    "anthropic-version": "2023-06-01",
    "anthropic-beta": "claude-code-20250219,interleaved-thinking-2025-05-14,context-management-2025-06-27",
    "authorization": "Bearer none",
    "x-app": "cli",
    "user-agent": "claude-cli/2.1.0 (external, cli)",
}
CODEX_HEADERS = {
    "authorization": "Bearer none",
    "session-id": "0193a5c0-0000-7000-8000-000000000001",
    "thread-id": "0193a5c0-0000-7000-8000-000000000002",
    "accept": "text/event-stream",
    "originator": "codex_cli_rs",
}


def string(description: str, **fields: Any) -> dict[str, Any]:
    """A property of a tool's schema."""
    return {"type": "string", "description": description, **fields}


def schema(properties: dict[str, Any], *required: str) -> dict[str, Any]:
    """The schema of a tool's arguments."""
    head = {"$schema": "http://json-schema.org/draft-07/schema#", "type": "object"}
    return {**head, "properties": properties, "required": list(required), "additionalProperties": False}


CLAUDE_TOOLS = [
    {
        "name": "Bash",
        "description": "Runs a command of the shell and returns its output.",
        "input_schema": schema(
            {"command": string("The command."), "timeout": {"type": "number"}, "description": string("Why.")},
            "command",
        ),
    },
    {
        "name": "Read",
        "description": "Reads a file.",
        "input_schema": schema({"file_path": string("The file."), "limit": {"type": "number"}}, "file_path"),
    },
    {
        "name": "TodoWrite",
        "description": "Keeps the list of tasks.",
        "input_schema": schema(
            {
                "todos": {
                    "type": "array",
                    "items": schema(
                        {
                            "content": string("The task.", minLength=1),
                            "status": {"type": "string", "enum": ["pending", "in_progress", "completed"]},
                        },
                        "content",
                        "status",
                    ),
                }
            },
            "todos",
        ),
    },
    {"type": "web_search_20250305", "name": "web_search", "max_uses": 8},
]


def claude_request(number: int, **fields: Any) -> dict[str, Any]:
    """Request number `number` of a session of Claude Code; its billing header differs in each."""
    billing = f"x-anthropic-billing-header: cc_version=2.1.0.{number}; cc_entrypoint=cli; cch={number:05x};"
    return {
        "model": "claude-sonnet-4-5",
        "max_tokens": 32_000,
        "stream": True,
        "system": [
            {"type": "text", "text": billing},
            {"type": "text", "text": "You are a command line tool for programmers.", **EPHEMERAL},
            {"type": "text", "text": "Answer briefly. Use the tools. " * 40, **EPHEMERAL},
        ],
        "messages": claude_history(),
        "tools": CLAUDE_TOOLS,
        "thinking": {"type": "enabled", "budget_tokens": 31_999},
        "metadata": {"user_id": '{"device_id":"d","account_uuid":"","session_id":"s"}'},
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        "output_config": {"effort": "medium"},
        **fields,
    }


def claude_history() -> list[dict[str, Any]]:
    """A history with thinking, two tool calls at once, and a failed result."""
    uses = [
        {"type": "tool_use", "id": f"toolu_{n}", "name": "Bash", "input": {"command": "ls"}} for n in range(2)
    ]
    results = [
        {"type": "tool_result", "tool_use_id": "toolu_0", "content": [{"type": "text", "text": "a.txt"}]},
        {"type": "tool_result", "tool_use_id": "toolu_1", "content": "no such file", "is_error": True},
    ]
    return [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "<system-reminder>\nToday is Monday.\n</system-reminder>"},
                {"type": "text", "text": "What is here?", **EPHEMERAL},
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "I look.", "signature": "c2ln"},
                {"type": "text", "text": "I look."},
                *uses,
            ],
        },
        {"role": "user", "content": [*results, {"type": "text", "text": "Go on.", **EPHEMERAL}]},
    ]


def codex_request(**fields: Any) -> dict[str, Any]:
    """A request of Codex: instructions apart, the whole history, tools of four types."""
    shell = schema({"command": {"type": "array", "items": {"type": "string"}}}, "command")
    grammar = {"type": "grammar", "syntax": "lark", "definition": "start: /.+/"}
    inner = {
        "type": "function",
        "name": "find",
        "strict": False,
        "parameters": schema({"q": string("?")}, "q"),
    }
    return {
        "model": "mini",
        "instructions": "You are a coding agent. " * 20,
        "input": codex_history(),
        "tools": [
            {
                "type": "function",
                "name": "shell",
                "description": "Runs.",
                "strict": False,
                "parameters": shell,
            },
            {"type": "custom", "name": "apply_patch", "description": "Edits files.", "format": grammar},
            {"type": "web_search", "external_web_access": False},
            {"type": "namespace", "name": "mcp__files", "description": "Files.", "tools": [inner]},
        ],
        "tool_choice": "auto",
        "parallel_tool_calls": True,
        "reasoning": {"effort": "medium", "summary": "auto"},
        "text": {"verbosity": "medium"},
        "store": False,
        "stream": True,
        "include": ["reasoning.encrypted_content"],
        "prompt_cache_key": "0193a5c0-0000-7000-8000-000000000001",
        "client_metadata": {"x-codex-installation-id": "i"},
        **fields,
    }


def codex_history() -> list[dict[str, Any]]:
    """A history with items that are only Codex's own."""

    def message(role: str, kind: str, text: str) -> dict[str, Any]:
        return {"type": "message", "role": role, "content": [{"type": kind, "text": text}]}

    call = {"type": "function_call", "name": "shell", "arguments": '{"command":["ls"]}', "call_id": "call_1"}
    patch = {
        "type": "custom_tool_call",
        "name": "apply_patch",
        "input": "*** Begin Patch",
        "call_id": "call_2",
    }
    return [
        message("developer", "input_text", "<permissions instructions>Ask first.</permissions instructions>"),
        message("user", "input_text", "<environment_context>\n  <cwd>/home</cwd>\n</environment_context>"),
        message("user", "input_text", "List the files."),
        {"type": "reasoning", "summary": [], "content": None, "encrypted_content": "gAAAA"},
        call,
        {"type": "function_call_output", "call_id": "call_1", "output": "a.txt\n"},
        patch,
        {"type": "custom_tool_call_output", "call_id": "call_2", "output": "Done"},
        message("assistant", "output_text", "There is a.txt."),
        message("user", "input_text", "Thanks. And now?"),
    ]
