from typing import ClassVar

from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True
    operations: ClassVar = [
        migrations.CreateModel("Note", [("id", models.BigAutoField(primary_key=True, serialize=False)), ("text", models.TextField())]),
    ]
