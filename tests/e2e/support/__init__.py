"""What end-to-end tests share: processes, browsers, hosts, hostile input."""
