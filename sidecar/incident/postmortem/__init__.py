"""The post-mortem of one incident, as Markdown: a pure function of what was stored, so the same record gives the same bytes."""
