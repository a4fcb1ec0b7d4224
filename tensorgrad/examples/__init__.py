"""Applications: each is a file to read, and one command, ``tensorgrad demo NAME``.

They use what the library gives to everybody, and nothing else. ``run`` of each is the command; what
comes before it in the file is the lesson. ``python -m tensorgrad.examples.NAME`` runs the two whose
weights others trained, sentence_similarity and speech_detection.
"""
