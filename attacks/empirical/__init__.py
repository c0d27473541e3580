"""Lower bounds on epsilon from what attacks achieve: they can refute a claim of privacy, and never confirm one."""

from attacks.empirical.bound import EpsilonBound
from attacks.empirical.clopper_pearson import ceiling_clopper_pearson, epsilon_clopper_pearson
from attacks.empirical.gaussian import epsilon_gaussian, gaussian_epsilon, rejects_gaussian
from attacks.empirical.one_run import audit_one_run, ceiling_one_run, correct_guesses, epsilon_one_run, p_value

__all__ = [
    "EpsilonBound",
    "audit_one_run",
    "ceiling_clopper_pearson",
    "ceiling_one_run",
    "correct_guesses",
    "epsilon_clopper_pearson",
    "epsilon_gaussian",
    "epsilon_one_run",
    "gaussian_epsilon",
    "p_value",
    "rejects_gaussian",
]
