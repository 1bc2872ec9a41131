"""
What is wrong with a configuration and a host: facts in, findings out. One file for each part of the box that is judged.

Every problem is found at once, and each says what it means and what to do. Nothing here looks at anything; `survey.py` does.
"""
