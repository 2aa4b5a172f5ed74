"""MCAP recordings, of ROS 2 or not."""
