"""Tells clients' URLs of their tasks' ends (`Poste-Callback`): signed as Standard Webhooks has it, tried for a day."""
