"""The resumable job as a library: its steps know no files of options, no Prefect, and print nothing.

`clustering.run` is the function of the public interface. The modules here are imported by their full names, such as
``from clustering.run.job import run_fit``.
"""
