"""The embedded competitions: what their tables must have in common, and must not."""

import pandas as pd

from competition.config import load_competition


def test_the_classes_of_the_tweets_follow_from_the_ratings_and_neither_table_tells_the_others_answers() -> None:
    ratings, classes = load_competition("tweet_sentiment"), load_competition("tweet_classes")
    assert ratings.test == classes.test
    known = pd.read_csv(ratings.train).set_index("id")["sentiment"]
    train, answers = pd.read_csv(classes.train), pd.read_csv(classes.answers or "")
    assert set(train["id"]) <= set(known.index) and not set(answers["id"]) & set(known.index)
    cut = pd.cut(known, [-4, -1, 1, 4], labels=classes.classes)
    assert (cut[train["id"]].astype(str).to_numpy() == train["label"]).mean() > 0.98  # a rating of 1 is positive
    assert train["label"].value_counts().min() > 300
