"""What every CRM module shares: errors, HTTP, paging, pacing, spooling, reading and writing."""
