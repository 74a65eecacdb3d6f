"""What REST shows of jobs, in SQL: derived from the topics alone, and rebuilt by replaying them."""
