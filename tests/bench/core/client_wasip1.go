package main

func client(string, string) {}
