"""After a scenario, from outside: is everything there, once, and nothing else?"""
