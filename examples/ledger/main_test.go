package main

import (
	"context"
	"testing"
)

// TestLedger runs it in one process.
func TestLedger(t *testing.T) {
	if err := ledger(context.Background(), 1, 5, 1); err != nil {
		t.Error(err)
	}
}
