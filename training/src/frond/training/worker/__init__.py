"""The training worker: ``python -m frond.training.worker``, which ``make train-worker`` starts.

Takes up the runs of ``POST /training``, one at a time, and has each trained by a process of its own,
in the environment that has torch (``FROND_TRAINING_PROGRAM``); nothing here needs it, and nothing
here promotes. The store says which runs there are and whose they are; an event only says that it is
time to look.

``deciding``  who may change a run, and to what; what a process's end means
``drifted``   when drift asks for a run
``child``     the process that trains, and its end
``handlers``  what becomes of the events
``trainer``   the loop: take a run up, see it through, say how it ended
``wiring``    Kafka, the store, and the loop
"""
