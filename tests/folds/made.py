"""The settings of a competition for tests that need no files, and the folds of one that has them."""

from competition.config import CompetitionConfig, load_competition
from core.user_tables import read_text_table
from folds import make
from folds.make import read_folds
from submissions.config import load_config


def competition(**settings):
    files = {"train": "a", "test": "b", "sample_submission": "c"}
    roles = {"id": "id", "metric": "rmse", "targets": ["y"]}
    return CompetitionConfig.model_validate({**files, **roles, **settings})


def divided(path, **changes):
    """Prepare and divide, with changes of the section `folds`: the output, the paths, the fold of each row."""
    config = load_competition(str(path))
    output = make.run(config, load_config(str(path)).folds.model_copy(update=changes))
    ids = read_text_table(config.train)["id"]
    return output, config.paths, read_folds(config.paths.folds, list(ids)).tolist()
