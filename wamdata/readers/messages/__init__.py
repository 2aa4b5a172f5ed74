"""What MCAP files and ROS bags share: topics of timed messages, and how they become streams, words and cameras."""
