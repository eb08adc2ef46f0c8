"""`rfsearch.learn` inside the trainers of other frameworks, each an optional install."""
