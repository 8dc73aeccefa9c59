"""The figures of the lecture, drawn from the configs in ``configs/lecture`` through the public interface."""
