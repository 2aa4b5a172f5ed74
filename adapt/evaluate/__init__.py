"""Models judged on held-out windows.

`judging` scores actions and video, `free` lets predictions feed predictions, `probes` asks what inputs change, `arms`
says what is judged and under which settings, `windows` turns samples into windows.
"""

from adapt.evaluate.arms import Arm, HasLossAt, ServesAs, Serving, deployed
from adapt.evaluate.judging import Judged, judge
from adapt.evaluate.probes import Probes, judge_forgetting, loss_by_level

__all__ = [
    "Arm",
    "HasLossAt",
    "Judged",
    "Probes",
    "ServesAs",
    "Serving",
    "deployed",
    "judge",
    "judge_forgetting",
    "loss_by_level",
]
