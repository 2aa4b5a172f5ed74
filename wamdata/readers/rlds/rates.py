"""Control rates of public data sets, which RLDS has no place for.

From the column "Control Frequency" of the Open X-Embodiment dataset overview, as far as independent loaders of these
sets agree with it; DROID's from its paper. A name that is not here is not guessed.
"""

CONVERTED = "_converted_externally_to_rlds"
RATES_HZ = {
    "austin_buds_dataset": 20.0,
    "austin_sailor_dataset": 20.0,
    "austin_sirius_dataset": 20.0,
    "bc_z": 10.0,
    "berkeley_autolab_ur5": 5.0,
    "berkeley_cable_routing": 10.0,
    "berkeley_fanuc_manipulation": 10.0,
    "bridge": 5.0,
    "bridge_dataset": 5.0,
    "bridge_orig": 5.0,
    "bridge_oxe": 5.0,
    "cmu_stretch": 10.0,
    "dlr_edan_shared_control": 5.0,
    "droid": 15.0,
    "droid_100": 15.0,
    "fmb": 10.0,
    "fractal20220817_data": 3.0,
    "furniture_bench_dataset": 10.0,
    "iamlab_cmu_pickup_insert": 20.0,
    "jaco_play": 10.0,
    "kuka": 10.0,
    "language_table": 10.0,
    "nyu_franka_play_dataset": 3.0,
    "roboturk": 10.0,
    "stanford_hydra_dataset": 10.0,
    "taco_play": 15.0,
    "toto": 30.0,
    "ucsd_kitchen_dataset": 2.0,
    "utaustin_mutex": 20.0,
    "viola": 20.0,
}


def known_rate_hz(name: str) -> float | None:
    """Steps per second of a data set, None where it is not known."""
    return RATES_HZ.get(name.lower().removesuffix(CONVERTED))
