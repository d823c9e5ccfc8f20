"""Chats that the service keeps: messages, answers that run by themselves, shares, memory and attachments."""
