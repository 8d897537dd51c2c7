"""The parts of routing_trials.py: traces, engines, routers, load and report."""
