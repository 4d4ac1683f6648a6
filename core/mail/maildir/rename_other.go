//go:build !linux

package maildir

import (
	"errors"
	"fmt"
)

// renameNoReplace has no portable form: a plain rename replaces its target.
func renameNoReplace(_, _ string) error {
	return fmt.Errorf("a rename that keeps an existing file: %w", errors.ErrUnsupported)
}
