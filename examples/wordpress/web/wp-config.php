<?php
// Every setting is an environment variable, or the file that NAME_FILE names.
function setting($name, $default = '') {
    $file = getenv($name . '_FILE');
    return $file ? trim(file_get_contents($file)) : (getenv($name) ?: $default);
}

define('DB_HOST', setting('WORDPRESS_DB_HOST', 'db'));
define('DB_NAME', setting('WORDPRESS_DB_NAME', 'wordpress'));
define('DB_USER', setting('WORDPRESS_DB_USER', 'wordpress'));
define('DB_PASSWORD', setting('WORDPRESS_DB_PASSWORD'));
define('DB_CHARSET', 'utf8mb4');
define('DB_COLLATE', '');
$table_prefix = setting('WORDPRESS_TABLE_PREFIX', 'wp_');

// The same in every copy, or a visitor would be logged out at each request.
foreach (array('AUTH_KEY', 'SECURE_AUTH_KEY', 'LOGGED_IN_KEY', 'NONCE_KEY',
               'AUTH_SALT', 'SECURE_AUTH_SALT', 'LOGGED_IN_SALT', 'NONCE_SALT') as $name) {
    define($name, hash_hmac('sha256', $name, setting('WORDPRESS_SALT')));
}

define('WP_CONTENT_DIR', '/var/lib/wordpress/wp-content');
// Updates come as new images, one copy after the other.
define('DISALLOW_FILE_MODS', true);
define('AUTOMATIC_UPDATER_DISABLED', true);

if (!defined('ABSPATH')) {
    define('ABSPATH', '/usr/share/wordpress/');
}
require_once ABSPATH . 'wp-settings.php';
