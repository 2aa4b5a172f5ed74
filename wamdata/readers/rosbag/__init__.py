"""ROS 1 bags, and ROS 2 bags kept in SQLite."""
