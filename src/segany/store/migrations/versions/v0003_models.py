"""Snapshots of annotations, and the models that were trained on them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make their tables."""
    op.create_table(
        "snapshots",
        sa.Column("key", BIG, autoincrement=True, nullable=False),
        sa.Column("project", BIG, nullable=False),
        sa.Column("id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["project"], ["projects.key"], name="fk_snapshots_project"),
        sa.PrimaryKeyConstraint("key", name="pk_snapshots"),
        sa.UniqueConstraint("project", "id", name="uq_snapshots_project_id"),
    )
    op.create_table(
        "snapshot_revisions",
        sa.Column("snapshot", BIG, autoincrement=False, nullable=False),
        sa.Column("revision", BIG, autoincrement=False, nullable=False),
        sa.Column("split", sa.Text(), nullable=False),
        sa.CheckConstraint("split IN ('train', 'val', 'test')", name="ck_snapshot_revisions_split"),
        sa.ForeignKeyConstraint(["snapshot"], ["snapshots.key"], name="fk_snapshot_revisions_snapshot"),
        sa.ForeignKeyConstraint(["revision"], ["revisions.key"], name="fk_snapshot_revisions_revision"),
        sa.PrimaryKeyConstraint("snapshot", "revision", name="pk_snapshot_revisions"),
    )
    op.create_table(
        "model_versions",
        sa.Column("key", BIG, autoincrement=True, nullable=False),
        sa.Column("project", BIG, nullable=False),
        sa.Column("id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("blob", sa.String(length=64), nullable=True),
        sa.Column("parent", BIG, nullable=True),
        sa.Column("snapshot", BIG, nullable=True),
        sa.Column("recipe", sa.Text(), nullable=False),
        sa.Column("figures", sa.JSON(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("state IN ('candidate', 'current', 'refused', 'retired')", name="ck_model_versions_state"),
        sa.ForeignKeyConstraint(["project"], ["projects.key"], name="fk_model_versions_project"),
        sa.ForeignKeyConstraint(
            ["project", "blob"], ["blobs.project", "blobs.sha256"], name="fk_model_versions_project_blob"
        ),
        sa.ForeignKeyConstraint(["parent"], ["model_versions.key"], name="fk_model_versions_parent"),
        sa.ForeignKeyConstraint(["snapshot"], ["snapshots.key"], name="fk_model_versions_snapshot"),
        sa.PrimaryKeyConstraint("key", name="pk_model_versions"),
        sa.UniqueConstraint("project", "id", name="uq_model_versions_project_id"),
        sa.UniqueConstraint("project", "number", name="uq_model_versions_project_number"),
    )
