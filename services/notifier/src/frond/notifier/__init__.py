"""Completed jobs to signed webhooks and e-mail, with retries that survive a restart."""
