"""The first tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
SORTED_TEXT = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")


def upgrade() -> None:
    """Make them."""
    op.create_table(
        "projects",
        sa.Column("key", BIG, autoincrement=True, nullable=False),
        sa.Column("id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.Column("label_version", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_projects"),
        sa.UniqueConstraint("id", name="uq_projects_id"),
    )
    op.create_table(
        "blobs",
        sa.Column("project", BIG, nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("byte_count", BIG, nullable=False),
        sa.Column("media_type", sa.Text(), nullable=False),
        sa.Column("width", sa.Integer(), nullable=True),
        sa.Column("height", sa.Integer(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["project"], ["projects.key"], name="fk_blobs_project"),
        sa.PrimaryKeyConstraint("project", "sha256", name="pk_blobs"),
    )
    op.create_table(
        "jobs",
        sa.Column("key", BIG, autoincrement=True, nullable=False),
        sa.Column("project", BIG, nullable=False),
        sa.Column("id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("arguments", sa.JSON(), nullable=False),
        sa.Column("idempotency_key", sa.Text(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("lease", sa.Uuid(as_uuid=False), nullable=True),
        sa.Column("leased_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("cancel_requested", sa.Boolean(), nullable=False),
        sa.Column("done", BIG, nullable=False),
        sa.Column("total", BIG, nullable=False),
        sa.Column("unit", sa.Text(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("result", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("state IN ('queued', 'running', 'done', 'failed', 'canceled')", name="ck_jobs_state"),
        sa.ForeignKeyConstraint(["project"], ["projects.key"], name="fk_jobs_project"),
        sa.PrimaryKeyConstraint("key", name="pk_jobs"),
        sa.UniqueConstraint("project", "id", name="uq_jobs_project_id"),
        sa.UniqueConstraint("project", "idempotency_key", name="uq_jobs_project_idempotency_key"),
    )
    op.create_index("ix_jobs_project_state_key", "jobs", ["project", "state", "key"])
    op.create_table(
        "label_schemas",
        sa.Column("project", BIG, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("labels", sa.JSON(), nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["project"], ["projects.key"], name="fk_label_schemas_project"),
        sa.PrimaryKeyConstraint("project", "version", name="pk_label_schemas"),
    )
    op.create_table(
        "roots",
        sa.Column("project", BIG, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["project"], ["projects.key"], name="fk_roots_project"),
        sa.PrimaryKeyConstraint("project", "name", name="pk_roots"),
    )
    op.create_table(
        "secrets",
        sa.Column("project", BIG, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["project"], ["projects.key"], name="fk_secrets_project"),
        sa.PrimaryKeyConstraint("project", "name", name="pk_secrets"),
    )
    op.create_table(
        "items",
        sa.Column("key", BIG, autoincrement=True, nullable=False),
        sa.Column("project", BIG, nullable=False),
        sa.Column("id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("position", BIG, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("name_key", SORTED_TEXT, nullable=False),
        sa.Column("name_order", SORTED_TEXT, nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("byte_count", BIG, nullable=False),
        sa.Column("media_type", sa.Text(), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("blob", sa.String(length=64), nullable=True),
        sa.Column("root", sa.Text(), nullable=True),
        sa.Column("path", sa.Text(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("split", sa.Text(), nullable=False),
        sa.Column("objects", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("split IN ('train', 'val', 'test')", name="ck_items_split"),
        sa.CheckConstraint("state IN ('todo', 'in_progress', 'done', 'skipped')", name="ck_items_state"),
        sa.CheckConstraint("blob IS NOT NULL OR (root IS NOT NULL AND path IS NOT NULL)", name="ck_items_has_bytes"),
        sa.ForeignKeyConstraint(["project", "blob"], ["blobs.project", "blobs.sha256"], name="fk_items_project_blob"),
        sa.ForeignKeyConstraint(["project", "root"], ["roots.project", "roots.name"], name="fk_items_project_root"),
        sa.ForeignKeyConstraint(["project"], ["projects.key"], name="fk_items_project"),
        sa.PrimaryKeyConstraint("key", name="pk_items"),
        sa.UniqueConstraint("project", "id", name="uq_items_project_id"),
        sa.UniqueConstraint("project", "position", name="uq_items_project_position"),
        sa.UniqueConstraint("project", "root", "path", name="uq_items_project_root_path"),
    )
    op.create_index("ix_items_project_name_key", "items", ["project", "name_key"])
    op.create_index(
        "ix_items_project_name_order_position", "items", ["project", "name_order", "position"], unique=False
    )
    op.create_index("ix_items_project_objects_position", "items", ["project", "objects", "position"])
    op.create_index("ix_items_project_sha256", "items", ["project", "sha256"])
    op.create_index("ix_items_project_state_position", "items", ["project", "state", "position"])
    op.create_index(
        "ix_items_project_updated_at_position", "items", ["project", "updated_at", "position"], unique=False
    )
    op.create_table(
        "item_labels",
        sa.Column("project", BIG, nullable=False),
        sa.Column("label_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("position", BIG, autoincrement=False, nullable=False),
        sa.Column("item", BIG, nullable=False),
        sa.Column("objects", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["item"], ["items.key"], name="fk_item_labels_item"),
        sa.ForeignKeyConstraint(["project"], ["projects.key"], name="fk_item_labels_project"),
        sa.PrimaryKeyConstraint("project", "label_id", "position", name="pk_item_labels"),
    )
    op.create_index("ix_item_labels_item", "item_labels", ["item"])
    op.create_table(
        "objects",
        sa.Column("key", BIG, autoincrement=True, nullable=False),
        sa.Column("project", BIG, nullable=False),
        sa.Column("id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("item", BIG, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["item"], ["items.key"], name="fk_objects_item"),
        sa.ForeignKeyConstraint(["project"], ["projects.key"], name="fk_objects_project"),
        sa.PrimaryKeyConstraint("key", name="pk_objects"),
        sa.UniqueConstraint("project", "id", name="uq_objects_project_id"),
    )
    op.create_index("ix_objects_item", "objects", ["item"])
    op.create_table(
        "proposals",
        sa.Column("item", BIG, autoincrement=False, nullable=False),
        sa.Column("model_version", sa.Text(), nullable=False),
        sa.Column("project", BIG, nullable=False),
        sa.Column("instances", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["item"], ["items.key"], name="fk_proposals_item"),
        sa.ForeignKeyConstraint(["project"], ["projects.key"], name="fk_proposals_project"),
        sa.PrimaryKeyConstraint("item", "model_version", name="pk_proposals"),
    )
    op.create_table(
        "revisions",
        sa.Column("key", BIG, autoincrement=True, nullable=False),
        sa.Column("project", BIG, nullable=False),
        sa.Column("id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("object", BIG, nullable=False),
        sa.Column("parent", BIG, nullable=True),
        sa.Column("batch_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("counts", sa.Text(), nullable=False),
        sa.Column("x0", sa.Integer(), nullable=False),
        sa.Column("y0", sa.Integer(), nullable=False),
        sa.Column("x1", sa.Integer(), nullable=False),
        sa.Column("y1", sa.Integer(), nullable=False),
        sa.Column("area", BIG, nullable=False),
        sa.Column("label_id", sa.Integer(), nullable=True),
        sa.Column("label_version", sa.Integer(), nullable=False),
        sa.Column("attributes", sa.JSON(), nullable=False),
        sa.Column("z", sa.Float(precision=53), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("model_version", sa.Text(), nullable=True),
        sa.Column("deleted", sa.Boolean(), nullable=False),
        sa.Column("conflicting", sa.Boolean(), nullable=False),
        sa.Column("active_ms", BIG, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("source IN ('manual', 'assisted', 'auto', 'imported')", name="ck_revisions_source"),
        sa.ForeignKeyConstraint(["object"], ["objects.key"], name="fk_revisions_object"),
        sa.ForeignKeyConstraint(["parent"], ["revisions.key"], name="fk_revisions_parent"),
        sa.ForeignKeyConstraint(["project"], ["projects.key"], name="fk_revisions_project"),
        sa.PrimaryKeyConstraint("key", name="pk_revisions"),
        sa.UniqueConstraint("project", "id", name="uq_revisions_project_id"),
    )
    op.create_index("ix_revisions_object", "revisions", ["object"])
    op.create_table(
        "heads",
        sa.Column("object", BIG, autoincrement=False, nullable=False),
        sa.Column("project", BIG, nullable=False),
        sa.Column("item", BIG, nullable=False),
        sa.Column("revision", BIG, nullable=False),
        sa.Column("label_id", sa.Integer(), nullable=True),
        sa.Column("deleted", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["item"], ["items.key"], name="fk_heads_item"),
        sa.ForeignKeyConstraint(["object"], ["objects.key"], name="fk_heads_object"),
        sa.ForeignKeyConstraint(["project"], ["projects.key"], name="fk_heads_project"),
        sa.ForeignKeyConstraint(["revision"], ["revisions.key"], name="fk_heads_revision"),
        sa.PrimaryKeyConstraint("object", name="pk_heads"),
    )
    op.create_index("ix_heads_item_deleted", "heads", ["item", "deleted"])
    op.create_table(
        "prompt_events",
        sa.Column("key", BIG, autoincrement=True, nullable=False),
        sa.Column("project", BIG, nullable=False),
        sa.Column("id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("revision", BIG, nullable=False),
        sa.Column("sequence", BIG, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("payload", sa.JSON(), nullable=False),
        sa.Column("model_version", sa.Text(), nullable=True),
        sa.Column("candidate", sa.Integer(), nullable=True),
        sa.Column("latency_ms", BIG, nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "kind IN ('point', 'box', 'mask', 'brush', 'polygon', 'edit', 'accept')", name="ck_prompt_events_kind"
        ),
        sa.ForeignKeyConstraint(["project"], ["projects.key"], name="fk_prompt_events_project"),
        sa.ForeignKeyConstraint(["revision"], ["revisions.key"], name="fk_prompt_events_revision"),
        sa.PrimaryKeyConstraint("key", name="pk_prompt_events"),
        sa.UniqueConstraint("project", "id", name="uq_prompt_events_project_id"),
    )
    op.create_index("ix_prompt_events_revision", "prompt_events", ["revision"])
