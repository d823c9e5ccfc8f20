"""Tasks: problems whose answers a program can check, and the verifiers that reward a reply to one."""
