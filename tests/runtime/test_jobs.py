from dataclasses import replace

import pytest
from fastssd.runtime.jobs import jobs_of

from fastssd.config import AugmentConfig, Config, DataConfig

CONFIG = Config(output="run", data=DataConfig(path="data"), augment=AugmentConfig(size=8))


def test_the_whole_recipe_is_the_papers_stages_and_two_baselines():
    jobs = {job.folder: job for job in jobs_of(CONFIG)}
    assert list(jobs) == [
        "1-features",
        "2-balance",
        "3-distill",
        "4-balance",
        "baseline-ce",
        "baseline-lws",
    ]
    assert [job.source for job in jobs.values()] == [
        None,
        "1-features",
        "2-balance",
        "3-distill",
        None,
        "baseline-ce",
    ]
    # Methods 2.1: stage IV rescales the hard head of stage III.
    assert jobs["4-balance"].head == "hard"
    assert jobs["1-features"].task == "rotation"
    assert jobs["baseline-ce"].task == "none"
    assert [folder for folder, job in jobs.items() if job.shares_views] == ["2-balance"]


@pytest.mark.parametrize("stages", [[], ["I"], ["I", "II", "III"], ["I", "II", "III", "IV"]])
@pytest.mark.parametrize("baselines", [[], ["CE"], ["CE", "LWS"]])
def test_every_job_comes_after_the_one_it_stands_on(stages, baselines):
    jobs = jobs_of(replace(CONFIG, stages=stages, baselines=baselines))
    folders = [job.folder for job in jobs]
    assert len(jobs) == len(stages) + len(baselines)
    for position, job in enumerate(jobs):
        assert job.source is None or job.source in folders[:position]
