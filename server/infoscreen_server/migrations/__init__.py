"""The schema's history, driven by db.upgrade and db.downgrade. A revision that was released never changes."""
