# SPDX-License-Identifier: GPL-3.0-or-later
"""The harbour of the demo shot: a red toy boat sails past a jetty, a lighthouse and a village in the evening."""
