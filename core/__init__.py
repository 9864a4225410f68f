"""What knows neither molecules nor models: files, settings, paths, digests, errors, command lines."""
