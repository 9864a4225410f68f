"""Who validates whom: one table `id,fold`, made once and read by every later step."""
