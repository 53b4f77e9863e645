/* The page: each part sets itself up. */
import {setUpBenchmark} from './benchmark.js';
import {setUpChat} from './chat.js';
import {setUpDiagnostics} from './diagnostics.js';
import {setUpModel} from './model.js';
import {setUpPicker} from './picker.js';
import {setUpProblems} from './problems.js';
import {setUpReport} from './report.js';
import {setUpTabs} from './tabs.js';

setUpProblems();
setUpTabs();
setUpPicker();
setUpModel();
setUpChat();
setUpDiagnostics();
setUpReport();
setUpBenchmark();
if ('serviceWorker' in navigator) {
    navigator.serviceWorker.register('sw.js').catch(e => console.warn('the page will need a network:', e));
}
document.documentElement.dataset.ready = 'true';
